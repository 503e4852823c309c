"""What a monitor does, in one file."""
