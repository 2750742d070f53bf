"""What MLflow is told: runs, the served form, versions, gates, deployments; and the way back."""
