import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpen.core.errors import FileFormatError
from sharpen.models.paged import PagedCache
from sharpen.serve.split.records import KVReader, KVSender, KVWriter
from sharpen.serve.split.ring import Ring
from small_models import small_spec

SPEC = small_spec(num_layers=3)


def filled(blocks, size, dtype=torch.float32):
    cache = PagedCache(SPEC, blocks, size, dtype=dtype)
    torch.manual_seed(0)
    for layer in range(SPEC.num_layers):
        for buffer in cache.buffers(layer):
            buffer.copy_(torch.randn(buffer.shape))
    return cache


def tokens_of(cache, layer, which, blocks, count):
    buffer, size = cache.buffers(layer)[which], cache.block_size
    return torch.stack([buffer[blocks[i // size], :, i % size] for i in range(count)])


def send(cache, blocks, tokens, **options):
    sender = KVSender(cache, SPEC, tokens, **options)
    sender.finish(blocks, 42)
    return b"".join(bytes(piece) for piece in sender.stream())


@settings(max_examples=25, deadline=None)
@given(
    tokens=st.integers(1, 40),
    sizes=st.tuples(st.sampled_from([1, 2, 8, 16]), st.sampled_from([1, 4, 16])),
    cut=st.integers(1, 3000),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    checksum=st.booleans(),
)
def test_records_reach_blocks_of_any_size_in_pieces_of_any_size(
    tokens, sizes, cut, dtype, checksum
):
    here, there = sizes
    cache = filled(64, here, dtype)
    blocks = torch.randperm(64)[: -(-tokens // here)].tolist()
    data = send(cache, blocks, tokens, checksum=checksum)
    other = PagedCache(SPEC, 64, there, dtype=dtype)
    target = torch.randperm(64)[: -(-tokens // there)].tolist()
    writer = KVWriter(other, SPEC, target, tokens)
    reader = KVReader(writer)
    for at in range(0, len(data), cut):
        for layer, start, count, piece in reader.feed(data[at : at + cut]):
            writer.check(layer, start, count)
            writer.write(layer, start, count, piece)
    assert reader.token == 42 and writer.complete
    for layer in range(SPEC.num_layers):
        for which in (0, 1):
            sent = tokens_of(cache, layer, which, blocks, tokens)
            assert torch.equal(sent, tokens_of(other, layer, which, target, tokens))


@pytest.mark.parametrize("checksum", [False, True])
def test_records_go_through_a_ring_of_two_slots_of_three_tokens(checksum):
    ring = Ring(slots=2, slot_bytes=3 * 2 * SPEC.kv_size * 4)
    there = Ring.opened(ring.ticket)
    cache, other = filled(8, 4), PagedCache(SPEC, 8, 16)
    sender = KVSender(cache, SPEC, 14, checksum=checksum, ring=ring)
    thread = threading.Thread(target=sender.finish, args=([3, 1, 4, 0], 42))
    thread.start()
    writer = KVWriter(other, SPEC, [6], 14)
    reader = KVReader(writer, there)
    sizes = []
    for data in sender.stream():
        for layer, start, count, piece in reader.feed(bytes(data)):
            writer.check(layer, start, count)
            writer.write(layer, start, count, piece)
            sizes.append(count)
        reader.taken()
    thread.join()
    assert sizes == [3, 3, 3, 3, 2] * SPEC.num_layers
    assert reader.token == 42 and writer.complete
    assert sender.sent_bytes > SPEC.num_layers * 14 * 2 * SPEC.kv_size * 4
    for layer in range(SPEC.num_layers):
        for which in (0, 1):
            sent = tokens_of(cache, layer, which, [3, 1, 4, 0], 14)
            assert torch.equal(sent, tokens_of(other, layer, which, [6], 14))
    ring.close()
    there.close()


def test_damage_in_a_ring_and_rings_that_are_not_there_are_told():
    ring = Ring(slots=8, slot_bytes=1 << 12)
    sender = KVSender(filled(8, 4), SPEC, 6, checksum=True, ring=ring)
    sender.finish([0, 1], 5)
    data = b"".join(bytes(piece) for piece in sender.stream())
    writer = KVWriter(PagedCache(SPEC, 8, 4), SPEC, [0, 1], 6)
    ring.slot(1)[9] ^= 1
    with pytest.raises(FileFormatError, match="layer 1 from token 0 were damaged"):
        KVReader(writer, ring).feed(data)
    with pytest.raises(FileFormatError, match="in no ring"):
        KVReader(writer).feed(data)
    ring.close()


def test_a_sender_does_not_write_over_what_nobody_took_and_gives_up_when_closed():
    ring = Ring(slots=2, slot_bytes=1 << 12)
    sender = KVSender(filled(8, 4), SPEC, 6, ring=ring)
    thread = threading.Thread(target=sender.finish, args=([0, 1], 5))
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()  # three layers, two slots
    first = bytes(ring.slot(0))
    sender.close()
    thread.join(5)
    assert not thread.is_alive()
    assert bytes(ring.slot(0)) == first
    ring.close()


def test_damage_gaps_and_wrong_sizes_are_told():
    cache = filled(8, 4)
    data = bytearray(send(cache, [0, 1], 6, checksum=True))
    writer = KVWriter(PagedCache(SPEC, 8, 4), SPEC, [0, 1], 6)
    data[40] ^= 1
    with pytest.raises(FileFormatError, match="layer 0 from token 0 were damaged"):
        KVReader(writer).feed(bytes(data))
    with pytest.raises(FileFormatError, match="do not continue a prompt of 6 tokens in 3 layers"):
        writer.check(0, 2, 1)
    with pytest.raises(FileFormatError, match="layer 3"):
        writer.check(3, 0, 1)
    # A header that asks for more than there is: refused before its bytes are waited for.
    huge = send(filled(64, 4), list(range(64)), 200)
    with pytest.raises(FileFormatError, match="tokens 0 to 200"):
        KVReader(writer).feed(huge[:24])
    assert not writer.complete


def test_a_sender_waits_for_the_link_and_goes_on_when_it_is_closed():
    sender = KVSender(filled(8, 4), SPEC, 6)
    sender._queue.maxsize = 1
    thread = threading.Thread(target=sender.finish, args=([0, 1], 5))
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()
    sender.close()
    thread.join(5)
    assert not thread.is_alive()
    assert list(sender.stream()) == []
