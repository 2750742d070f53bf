"""What the test photographs say of both models: metrics, intervals, failures, plots, report."""
