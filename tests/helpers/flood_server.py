"""An SSH server that keeps no rule: it lets everybody in and floods. Started as `flood_server.py PORTFILE MODE`."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import sys
import threading
import time
from pathlib import Path

import paramiko

BLOCK = b"1" * 30_000
MIB = 2**20
HELLO = {"home": "/home/x", "python": [3, 11, 0], "executable": "/usr/bin/python3", "pid": 1, "user": 0}


class Everybody(paramiko.ServerInterface):
    """Lets in whoever comes."""

    def check_auth_password(self, username: str, password: str) -> int:
        return paramiko.AUTH_SUCCESSFUL

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return paramiko.AUTH_SUCCESSFUL

    def get_allowed_auths(self, username: str) -> str:
        return "password,publickey"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=serve, args=(channel,), daemon=True).start()
        return True


def message(kind: int, *fields: bytes | int) -> paramiko.Message:
    made = paramiko.Message()
    made.add_byte(bytes([kind]))
    for each in fields:
        made.add_int(each) if isinstance(each, int) else made.add_string(each)
    return made


def raw(channel: paramiko.Channel, data: bytes) -> None:
    """Bytes of a channel, whatever its window says."""
    channel.transport._send_user_message(message(94, channel.remote_chanid, data))


def frame(channel: paramiko.Channel, data: bytes) -> None:
    """An answer, as fast as the window allows."""
    channel.sendall(b"%d\n" % len(data) + data)


def for_ever(channel: paramiko.Channel, *made: paramiko.Message) -> None:
    while True:
        for each in made:
            channel.transport._send_user_message(each)


class Asked:
    """What the client sends, line by line and frame by frame."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self.channel, self.have = channel, b""

    def line(self) -> bytes:
        while b"\n" not in self.have:
            self.have += self._more()
        line, self.have = self.have.split(b"\n", 1)
        return line

    def read(self, size: int) -> bytes:
        while len(self.have) < size:
            self.have += self._more()
        data, self.have = self.have[:size], self.have[size:]
        return data

    def _more(self) -> bytes:
        data = self.channel.recv(65_536)
        if not data:
            raise EOFError
        return data


ANSWERS = {  # to whatever is asked
    "a frame of 64 MB": lambda: b'{"ok":[' + b"[]," * (21 * MIB) + b"[]]}",
    "lists without end": lambda: b'{"ok":[' + b"[]," * (5 * MIB) + b"[]]}",
    "objects in objects": lambda: b'{"ok":[' + (b'{"":' * 500 + b"1" + b"}" * 500 + b",") * 5000 + b"1]}",
    "objects that look like text": lambda: b'{"ok":["' + b'\\"' * 2_000_000 + b'",' + b"{}," * 3_000_000 + b"{}]}",
    "numbers without end": lambda: b'{"ok":[' + b"300," * 3_900_000 + b"1]}",
    "lists nested for ever": lambda: b'{"ok":' + b"[" * (15 * MIB),
    "one number of 15 MB": lambda: b'{"ok":' + b"9" * (15 * MIB) + b"}",
    "a text of 15 MB": lambda: b'{"ok":{"slots":"' + b"x" * (15 * MIB) + b'"}}',
    "a text of escapes": lambda: b'{"ok":"' + b"\\ud83d\\ude00" * MIB + b'"}',
}


def answer(channel: paramiko.Channel, asked: Asked, mode: str) -> None:
    """Do to a request what the mode says."""
    to = channel.remote_chanid
    do = json.loads(asked.read(int(asked.line())))["do"]
    if mode in ANSWERS:
        frame(channel, ANSWERS[mode]())
        for_ever(channel, message(94, to, BLOCK))
    elif mode == "bytes when idle":
        frame(channel, b'{"ok":null}')
        for_ever(channel, message(94, to, BLOCK))
    elif mode == "errors when idle":
        frame(channel, b'{"ok":null}')
        for_ever(channel, message(95, to, 1, BLOCK))
    elif mode == "bytes of no known stream":
        frame(channel, b'{"ok":null}')
        for_ever(channel, message(95, to, 7, BLOCK))
    elif mode == "packets without bytes":
        for_ever(channel, message(94, to, b""))
    elif mode == "messages to be ignored":
        for_ever(channel, message(2, BLOCK))
    elif mode == "debug messages":
        for_ever(channel, message(4, b"", b""))
    elif mode == "questions about nothing":
        for_ever(channel, message(80, b"what?"))
    elif mode == "channels that it opens":
        for_ever(channel, message(90, b"x11", 9, 9, 9))
    elif mode == "signs of life":
        for_ever(channel, message(94, to, b"+\n" * 15_000))
    elif mode == "a line without end":
        for_ever(channel, message(94, to, BLOCK))
    elif mode == "words during an upload" and do == "receive":
        frame(channel, b'{"ok":{"have":0,"whole":false}}')
        for_ever(channel, message(94, to, b"+\n" * 15_000))
    elif mode == "a byte a connection":
        frame(channel, b'{"ok":{"size":3000000}}')
        raw(channel, b"x")
        time.sleep(0.05)
        channel.transport.close()
    elif mode == "a byte of progress a connection":
        tries = Path(sys.argv[1] + ".tries")
        have = len(tries.read_bytes()) if tries.exists() else 0
        tries.write_bytes(b"x" * (have + 1))
        frame(channel, b'{"ok":{"have":%d,"whole":false}}' % have)
        time.sleep(0.05)
        channel.transport.close()
    elif mode == "more than the file":
        frame(channel, b'{"ok":{"size":1000}}')
        for_ever(channel, message(94, to, BLOCK))
    else:
        frame(channel, b'{"ok":null}')


def serve(channel: paramiko.Channel) -> None:
    mode = sys.argv[2]
    try:
        asked = Asked(channel)
        asked.line()
        asked.line()
        nonce, size = asked.line().split()
        asked.read(int(size))
        if mode == "a login that talks for ever":
            for_ever(channel, message(94, channel.remote_chanid, BLOCK))
        if mode == "a login with errors for ever":
            for_ever(channel, message(95, channel.remote_chanid, 1, BLOCK))
        raw(channel, b"\n" + nonce + b"\n")
        frame(channel, json.dumps({"ok": HELLO}).encode())
        while True:
            answer(channel, asked, mode)
    except (EOFError, OSError, paramiko.SSHException, ValueError):
        pass  # the client has hung up


RAW = {  # sent over the bare socket, before anything is SSH
    "a first line without end": [b"x" * 65_536],
    "first lines without end": [b"hello\r\n" * 8_000],
    "a packet of 2 GB": [b"SSH-2.0-x\r\n" + (2**31 - 4).to_bytes(4, "big"), b"x" * 65_536],
    "a packet of 16 MB": [b"SSH-2.0-x\r\n" + (2**24 - 4).to_bytes(4, "big"), b"x" * 65_536],
}


def talk(sock: socket.socket, first: bytes, *more: bytes) -> None:
    try:
        sock.sendall(first)
        while True:
            sock.sendall(more[0] if more else first)
    except OSError:
        pass


def main() -> None:
    key = paramiko.ECDSAKey.generate()
    listener = socket.create_server(("127.0.0.1", 0))
    digest = base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")
    written = Path(sys.argv[1] + ".tmp")
    written.write_text(json.dumps({"port": listener.getsockname()[1], "host_key": f"SHA256:{digest}"}))
    written.rename(sys.argv[1])
    living = []
    while True:
        sock, _ = listener.accept()
        if sys.argv[2] in RAW:
            threading.Thread(target=talk, args=(sock, *RAW[sys.argv[2]]), daemon=True).start()
            continue
        transport = paramiko.Transport(sock)
        transport.add_server_key(key)
        living.append(transport)
        try:
            transport.start_server(server=Everybody())
        except (paramiko.SSHException, EOFError, OSError):
            continue


if __name__ == "__main__":
    os.environ.pop("SSH_AUTH_SOCK", None)
    main()
