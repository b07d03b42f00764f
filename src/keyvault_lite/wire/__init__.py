"""PROTOCOLS: tables and small functions, from HTTP to requests and from results to HTTP. No decision is made here."""
