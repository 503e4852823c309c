"""From an empty folder to a monitor that listens: source, normal sound, model, configuration."""
