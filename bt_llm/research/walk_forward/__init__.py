"""Walk-forward: parameters chosen on each train stretch, traded on the next."""
