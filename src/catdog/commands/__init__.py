"""What a person starts: catdog, predictions, the server, the pages."""
