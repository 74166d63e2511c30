"""The storage protocol and its drivers, each imported only when it is used."""
