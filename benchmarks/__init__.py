"""How fast the product is, beside a floor measured in the same run: `make bench`, written up in docs/performance.md."""
