"""The way back from use: corrections by people, the log of what was asked, review, drift."""
