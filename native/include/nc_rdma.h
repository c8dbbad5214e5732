/* A channel of bounded messages over an RDMA reliable connection, made for AMST's frames.
 *
 * Each side registers one slab of receive slots and one of transmit slots, once, when the channel
 * is opened. A message is put into a transmit slot and written with RDMA_WRITE_WITH_IMM into a slot
 * of the other side that is known to be free; the immediate value says which slot, or returns
 * credits. So there is a posted receive for every write that can come, and receiver-not-ready never
 * happens. libibverbs is loaded at run time. A channel is used by one thread at a time. */
#ifndef NC_RDMA_H
#define NC_RDMA_H

#include <stddef.h>
#include <stdint.h>

struct nc_err;
struct nc_rdma;         /* an opened device and port */
struct nc_rdma_channel; /* a queue pair with its slabs */

struct nc_rdma_options {
    const char *library; /* NULL: libibverbs.so.1 */
    const char *device;  /* NULL or "": the first with an active port */
    int port;            /* 0: the first active one */
    int gid_index; /* -1: the first RoCE v2 GID that is an IPv4 or global IPv6 one, else the first
                    */
};

/* UNAVAILABLE: no library, no RDMA in the kernel, no device, no active port, or iWARP. DENIED:
 * permission. NOT_FOUND: no such device, port or GID. Refuses to go on where the library says that
 * fork() would need ibv_fork_init. While it is open, the removal of a device whose driver cannot
 * take it from its users (Soft-RoCE) waits; every channel's poll says then that it was removed. */
int nc_rdma_open(const struct nc_rdma_options *options, struct nc_rdma **ret_rdma,
                 struct nc_err *err);
/* Channels may outlive it: the device is closed with the last of them. Takes NULL. */
void nc_rdma_close(struct nc_rdma *rdma);
const char *nc_rdma_device_name(const struct nc_rdma *rdma);
/* Whether the device was removed or failed: no channel can be opened on it any more, and it should
 * be closed as soon as its channels are. Any thread may ask. */
int nc_rdma_lost(struct nc_rdma *rdma);

/* What the other side has to know, exchanged over the control session. */
struct nc_rdma_peer {
    uint8_t gid[16];
    uint32_t qpn;
    uint32_t psn;
    uint32_t rkey;
    uint32_t slots;
    uint32_t slot_bytes;
    uint32_t mtu; /* bytes */
    uint64_t address;
    uint16_t lid;
};

/* slots: 2 to 1024 on each side; slot_bytes: a multiple of 4096. DENIED names RLIMIT_MEMLOCK where
 * the slabs may not be locked. */
int nc_rdma_channel_open(struct nc_rdma *rdma, uint32_t slots, uint32_t slot_bytes,
                         struct nc_rdma_channel **ret_channel, struct nc_err *err);
/* Takes NULL and half-built ones. The other side is not told: its next write fails after some 2 s
 * of retries, and where it has none to make, a probe does that the channel makes each second. */
void nc_rdma_channel_close(struct nc_rdma_channel *channel);
void nc_rdma_channel_local(const struct nc_rdma_channel *channel, struct nc_rdma_peer *ret_peer);
/* Brings the queue pair to ready-to-send. INVALID for a peer whose figures make no sense; the
 * channel can then still be connected. Nobody may post before both sides have connected: what is
 * written to a side that has not is retried for some 2 s and ends the channel then. May block for
 * seconds while the kernel resolves the address. */
int nc_rdma_channel_connect(struct nc_rdma_channel *channel, const struct nc_rdma_peer *peer,
                            struct nc_err *err);

/* Readable when nc_rdma_channel_poll may have something: messages, room, a failure, the loss of the
 * device, a probe of the peer to make, what the last poll had no capacity for. From the opening on;
 * non-blocking; the channel's own (an epoll set, so it can be part of another one and is never
 * read). */
int nc_rdma_channel_fd(const struct nc_rdma_channel *channel);

/* A transmit slot of slot_bytes, or NULL: none is free here, or none over there. */
uint8_t *nc_rdma_channel_acquire(struct nc_rdma_channel *channel, uint32_t *ret_slot);
/* Gives an acquired slot back unused. */
void nc_rdma_channel_discard(struct nc_rdma_channel *channel, uint32_t slot);
/* Whether all that was posted is in the other side's memory, as far as poll knows. */
int nc_rdma_channel_delivered(const struct nc_rdma_channel *channel);
/* Sends the first size bytes of an acquired slot. */
int nc_rdma_channel_post(struct nc_rdma_channel *channel, uint32_t slot, uint32_t size,
                         struct nc_err *err);

struct nc_rdma_message {
    /* Valid, and writable by decryption in place, until released. A peer that breaks the rules can
     * write here all that time: check what was copied or decrypted elsewhere, not what is here. */
    const uint8_t *data;
    uint32_t size;
    uint32_t slot;
};

/* Drains completions and fills at most `capacity` received messages; re-arms the descriptor when
 * there is nothing left, without a lost wake-up. *ret_room: whether acquire would give a slot.
 * SYSTEM with the work completion's status in words when the queue pair failed, PROTOCOL when the
 * peer broke the rules: the channel is then only good for closing, and every call says the same.
 * Messages that came before are given first, with OK. */
int nc_rdma_channel_poll(struct nc_rdma_channel *channel, struct nc_rdma_message *ret_messages,
                         size_t capacity, size_t *ret_count, int *ret_room, struct nc_err *err);
/* The message was taken; its slot's credit goes back to the other side (batched, at the latest with
 * half of the slots or at the next poll that finds nothing). */
int nc_rdma_channel_release(struct nc_rdma_channel *channel, uint32_t slot, struct nc_err *err);

#endif
