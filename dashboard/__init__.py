"""The fleet: one page over the processes of all servers that share a database.

A Django app. Each process reports itself to a table, and whoever looks reads the table. The console
script reads the same, and so does the collector for Prometheus.

How data flows: `payload` is what a process reports, `reporter` sends it with the statements of
`tables`, on a connection that `home` finds; `fleet` is what all of them have reported, which
`page`, `terminal` and `prometheus` show.
"""
