"""What both networks share: batches, epochs, checkpoints, devices, and what a training leaves."""
