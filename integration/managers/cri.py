#!/usr/bin/python3
"""One call to a CRI server: cri.py SOCKET METHOD, the request as JSON on stdin, the response as JSON on stdout.

Messages are those of cri.proto beside this file. A refusal: its text on stderr, exit code 1."""
import json, os, subprocess, sys, tempfile

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

socket, method = sys.argv[1:]
here = os.path.dirname(os.path.abspath(__file__))
with tempfile.NamedTemporaryFile() as file:
    subprocess.run(["protoc", "-I", here, "--descriptor_set_out", file.name, "cri.proto"], check=True)
    files = descriptor_pb2.FileDescriptorSet.FromString(file.read())
pool = descriptor_pool.DescriptorPool()
for file in files.file:
    pool.Add(file)
def message(name):
    return message_factory.MessageFactory(pool).GetPrototype(pool.FindMessageTypeByName("runtime.v1." + name))

request = json_format.ParseDict(json.load(sys.stdin), message(method + "Request")())
response = message(method + "Response")
with grpc.insecure_channel("unix://" + socket) as channel:
    call = channel.unary_unary(
        "/runtime.v1.RuntimeService/" + method,
        request_serializer=lambda given: given.SerializeToString(),
        response_deserializer=response.FromString,
    )
    try:
        print(json_format.MessageToJson(call(request, timeout=60), including_default_value_fields=True))
    except grpc.RpcError as error:
        sys.exit(error.details())
