"""The wrapper: the ``DatabaseWrapper``, cursors and schema editor that Django uses."""
