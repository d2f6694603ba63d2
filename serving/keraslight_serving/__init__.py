"""Serving image classifiers over TensorFlow Serving's gRPC protocol.

client/   talks to this server and to TensorFlow Serving; needs neither tensorflow nor keras
server/   the embedded model server: `python -m keraslight_serving.server --help`
wire/     the messages that both speak
"""
