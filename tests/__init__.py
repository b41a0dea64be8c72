"""A package and no bare folder: a wheel (kaldi-io) brings a package of this name, which would come first."""
