"""Conformance suites: what a bridge or an actor must do to be one, tried against any that speaks the protocol."""
