"""Machine and noise taken apart: networks, their training, and separated recordings."""
