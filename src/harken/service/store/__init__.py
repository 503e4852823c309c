"""Where monitors keep what they heard, said and were answered: SQLite or PostgreSQL. Needs the extra `service`."""
