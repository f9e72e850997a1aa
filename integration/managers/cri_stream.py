#!/usr/bin/python3
"""The streams behind the address that Exec and Attach answer: cri_stream.py URL [COLUMNSxROWS], by websocket.

Each message is of the channel that its first byte names: 0 stdin, 1 stdout, 2 stderr, 3 how it ended, 4 sizes of the
terminal. This process's own streams are the other ends, and it ends as the program did."""
import json, os, sys, threading

import websocket

url, *size = sys.argv[1:]
connection = websocket.create_connection("ws" + url.removeprefix("http"), subprotocols=["v4.channel.k8s.io"], timeout=30)
def send(channel, content):
    connection.send_binary(bytes([channel]) + content)
for columns, rows in (word.split("x") for word in size):
    send(4, json.dumps({"Width": int(columns), "Height": int(rows)}).encode())
def pass_on():
    while content := os.read(0, 4096):
        send(0, content)
threading.Thread(target=pass_on, daemon=True).start()
while True:
    try:
        message = connection.recv()
    except websocket.WebSocketException:
        message = b""
    if not message:
        os._exit(0)
    channel, content = message[0], message[1:]
    if channel in (1, 2):
        os.write(channel, content)
    elif channel == 3 and content:
        status = json.loads(content)
        if status["status"] != "Success":
            causes = {cause.get("reason"): cause.get("message") for cause in status.get("details", {}).get("causes", [])}
            os.write(2, b"" if "ExitCode" in causes else status.get("message", "").encode())
            os._exit(int(causes.get("ExitCode", 255)))
        os._exit(0)
