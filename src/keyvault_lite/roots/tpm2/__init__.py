"""A TPM 2.0 chip, spoken to directly: no C library, no daemon."""
