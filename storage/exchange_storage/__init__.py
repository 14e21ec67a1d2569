"""The storage floor: keeps and finds; knows no protocol, no policy and no person."""
