"""What people see of the monitor and answer to it, in the browser; the same for programs."""
