"""The science: pure functions, a session in, labelled arrays out. One file a method."""
