"""What people answer changes a model: normal sound is learned, faults are kept, versions compared and gone back to."""
