"""Session state: what the owner of a lease has changed in its session, and how to undo it."""
