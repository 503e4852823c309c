"""What a monitor is told to do, in one file."""
