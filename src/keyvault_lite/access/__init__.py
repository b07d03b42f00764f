"""Authentication and authorisation: pure functions over a verified state. Absent means denied."""
