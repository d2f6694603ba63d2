"""Serves image classifiers over TensorFlow Serving's gRPC and REST protocols.

client/   Client for this server and for TensorFlow Serving; needs neither tensorflow nor keras.
server/   Embedded model server: `python -m keraslight_serving.server --help`.
wire/     Messages of both protocols.
"""
