"""A network computed as quickly as this processor can: its number formats, and OpenVINO."""
