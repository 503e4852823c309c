"""What runs next to machines for years: sources, windows, sensor status, alarms, store, sinks."""
