"""The root of the errors of database and artifact store."""


class StorageError(Exception):
    """What is stored, or where it should be, cannot be used; the message says why, in one readable line."""
