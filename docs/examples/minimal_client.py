#!/usr/bin/env python3
"""A small client of emberd in Python, standard library only: docs/protocol.md at work.

usage: minimal_client.py [SOCKET]      embeds some texts with the built-in model
       minimal_client.py --self-test   compares its encoding with protocol/tests/golden.txt
"""
import fcntl, mmap, os, pathlib, socket, struct, sys

MAGIC, VERSION = 0xB3ED, 3
HELLO, REQUEST, FREE, WELCOME, REFUSAL, RESPONSE, SEGMENT, RETIRE = 1, 2, 4, 16, 17, 18, 19, 20
HEADER = struct.Struct("<HBBHHQII")
F_GET_SEALS, SHRINK, GROW, WRITE, FUTURE_WRITE = 1034, 2, 4, 8, 16


def frame(kind, request_id, body, tail=b""):
    return HEADER.pack(MAGIC, VERSION, kind, 0, 0, request_id, len(body), len(tail)) + body + tail


def string(text):
    return struct.pack("<Q", len(text.encode())) + text.encode()


def hello(name):
    return string(name) + b"\1"  # large results may come in shared memory


def acquire(model):
    # Some(Embedding), and no events.
    return struct.pack("<I", 1) + string(model) + struct.pack("<BIB", 1, 0, 0)


def embed(lease, texts):
    # Embed, Lease, ..., Auto; the default prompt, no other options; F32, no ranges.
    body = struct.pack("<IIQIIIBBIB", 3, 0, lease, len(texts), 0, 0, 0, 0, 0, 0)
    texts = [text.encode() for text in texts]
    return body, struct.pack(f"<{len(texts)}I", *map(len, texts)) + b"".join(texts)


def free(slot):
    return struct.pack("<QIQQQ", 1, *slot)


class Body:
    """Reads a message, front to back."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, layout):
        values = struct.unpack_from("<" + layout, self.data, self.at)
        self.at += struct.calcsize("<" + layout)
        return values if len(values) > 1 else values[0]

    def string(self):
        length = self.take("Q")
        if length > len(self.data) - self.at:
            raise ValueError("a string is longer than its message")
        self.at += length
        return self.data[self.at - length : self.at].decode()


class Client:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)
        self.buffer, self.descriptors, self.segments, self.last_id = b"", [], {}, 0
        self.socket.sendall(frame(HELLO, 0, hello("minimal_client.py")))
        kind, _, body, _ = self.read()
        if kind == REFUSAL:
            raise SystemExit(f"refused (reason {body.take('I')}): {body.string()}")
        self.daemon_version = body.string()

    def read_bytes(self, count):
        while len(self.buffer) < count:
            # Descriptors may arrive with bytes of earlier frames, but in order.
            data, descriptors, flags, _ = socket.recv_fds(
                self.socket, 1 << 18, 8, socket.MSG_CMSG_CLOEXEC)
            if not data or flags & socket.MSG_CTRUNC:
                raise ConnectionError("the daemon closed the connection")
            self.buffer += data
            self.descriptors += descriptors
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def read(self):
        """The next frame: kind, id, body, tail."""
        magic, version, kind, flags, _, request_id, body_len, tail_len = HEADER.unpack(
            self.read_bytes(HEADER.size))
        if (magic, version, flags) != (MAGIC, VERSION, 0):
            raise ValueError("no frame of this version")
        return kind, request_id, Body(self.read_bytes(body_len)), self.read_bytes(tail_len)

    def request(self, body, tail=b""):
        """Sends a request and waits for its answer: variant, body, tail."""
        self.last_id += 1
        self.socket.sendall(frame(REQUEST, self.last_id, body, tail))
        while True:
            kind, request_id, answer, rows = self.read()
            if kind == SEGMENT:
                self.map(answer)
            elif kind == RETIRE:
                self.segments.pop(answer.take("I")).close()
            elif kind == RESPONSE and request_id == self.last_id:
                variant = answer.take("I")
                if variant == 0:
                    code, message = answer.take("H"), answer.string()
                    raise RuntimeError(f"{message} (code {code})")
                return variant, answer, rows

    def map(self, announce):
        segment, length, handle = announce.take("IQI")
        if handle != 0:
            raise ValueError("this client maps descriptors only")
        descriptor = self.descriptors.pop(0)
        seals = fcntl.fcntl(descriptor, F_GET_SEALS)
        if not (seals & SHRINK and seals & GROW and seals & (WRITE | FUTURE_WRITE)):
            raise ValueError("the segment is not sealed")
        if os.fstat(descriptor).st_size != length:
            raise ValueError("the segment has another size than announced")
        self.segments[segment] = mmap.mmap(descriptor, length, prot=mmap.PROT_READ)
        os.close(descriptor)

    def acquire(self, model):
        _, body, _ = self.request(acquire(model))
        return body.take("Q")

    def embed(self, lease, texts):
        """One tuple of floats for each text, and where they came from."""
        _, body, tail = self.request(*embed(lease, texts))
        rows, dimension, _element, place = body.take("IIII")
        row = struct.Struct(f"<{dimension}f")
        if place == 0:
            return list(row.iter_unpack(tail)), "inline"
        slot = segment, offset, length, _generation = body.take("IQQQ")
        memory = self.segments[segment]
        if length != rows * row.size or offset % 64 or offset + length > len(memory):
            raise ValueError("the slot does not fit its segment")
        with memoryview(memory) as whole, whole[offset : offset + length] as part:
            vectors = list(row.iter_unpack(part))  # a copy; a zero-copy client reads in place
        self.socket.sendall(frame(FREE, 0, free(slot)))
        return vectors, "shared memory"


def self_test():
    golden = pathlib.Path(__file__).resolve().parents[2] / "protocol/tests/golden.txt"
    lines = [line.split() for line in golden.read_text().splitlines() if line[0] != "#"]
    frames = {name: bytes.fromhex("".join(parts).replace("-", "")) for name, *parts in lines}
    assert frame(HELLO, 0, hello("demo")) == frames["hello"]
    assert frame(REQUEST, 2, acquire("builtin")) == frames["request-acquire"]
    assert frame(REQUEST, 6, *embed(7, ["ember", "glüht"])) == frames["request-embed"]
    assert frame(FREE, 0, free((1, 128, 1_536_000, 9))) == frames["free"]
    body = lambda name: Body(frames[name][HEADER.size :])
    assert body("welcome").string() == "0.1.0"
    assert body("segment").take("IQI") == (1, 4 << 20, 0)
    assert body("response-leased").take("IQ") == (2, 7)
    assert body("response-embedded-slot").take("IIIIIIQQQ") == (
        4, 1000, 384, 0, 1, 1, 128, 1_536_000, 9)
    print("the encoding is that of the golden file")


def main(path):
    client = Client(path)
    lease = client.acquire("builtin")
    few = ["an ember glows", "coal that is still warm"]
    for texts in few, [f"text number {number}" for number in range(1000)]:
        vectors, way = client.embed(lease, texts)
        first = ", ".join(f"{value:.4f}" for value in vectors[0][:4])
        print(f"{len(vectors)} x {len(vectors[0])} through {way}: {first}, ...")


if __name__ == "__main__":
    runtime = os.environ.get("XDG_RUNTIME_DIR", "/run")
    if sys.argv[1:] == ["--self-test"]:
        self_test()
    else:
        default = os.environ.get("EMBERD_SOCKET", runtime + "/emberd/emberd.sock")
        main(sys.argv[1] if sys.argv[1:] else default)
