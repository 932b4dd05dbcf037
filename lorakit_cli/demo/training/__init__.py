"""How the embedded model and its two adapters were drawn, trained and measured."""
