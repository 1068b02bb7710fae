"""The instrument behind `make bench`: what the modules do is in benches/README.md."""
