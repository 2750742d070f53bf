"""How every plot and contact sheet looks, and what the two models are called."""
