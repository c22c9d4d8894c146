"""Any HTTP API as a victim, described in a TOML file: see docs/stealing.md."""
