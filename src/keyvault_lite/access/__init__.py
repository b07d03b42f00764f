"""WHO MAY: who a caller is, and what it is allowed. Pure functions over a verified state; absent means denied."""
