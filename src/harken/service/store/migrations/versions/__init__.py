"""One file per change of the tables; files of releases are never changed."""
