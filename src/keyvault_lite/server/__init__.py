"""SERVER: sockets, processes and HTTP/1.1. It hands requests to the application, and knows none of them."""
