"""Converts Caffe networks to Paddle: readable code, weights, an inference model and a report. See README.md."""
