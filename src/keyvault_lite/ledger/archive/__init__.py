"""Archive: the oldest entries as files that prove themselves."""
