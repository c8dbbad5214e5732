/* Frames over TCP. */
#define _GNU_SOURCE

#include <errno.h>
#include <fcntl.h>
#include <linux/inet_diag.h>
#include <limits.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "nc_amst_internal.h"

/* A peer that acknowledges nothing for this long is gone; with keepalive the same for an idle one.
 */
#define DEAD_MS 10000
/* What one turn reads at most, so that other streams of the thread get theirs. */
#define TURN_BYTES (2u * 1024 * 1024)

static int set(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof value);
}

int nc_tcp_prepare(int fd, struct nc_err *err)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0)
        return nc_err_set(err, NC_ERR_INVALID, errno, "the descriptor is no socket of ours");
    if (set(fd, IPPROTO_TCP, TCP_NODELAY, 1) != 0)
        return nc_err_set(err, NC_ERR_INVALID, errno, "the descriptor is no TCP socket");
    if (set(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, NC_TCP_LOWAT_BYTES) != 0 ||
        set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, DEAD_MS) != 0 ||
        set(fd, SOL_SOCKET, SO_KEEPALIVE, 1) != 0 || set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 4) != 0 ||
        set(fd, IPPROTO_TCP, TCP_KEEPINTVL, 2) != 0 || set(fd, IPPROTO_TCP, TCP_KEEPCNT, 3) != 0)
        return nc_err_set(err, NC_ERR_SYSTEM, errno, "setting socket options failed");
    return NC_ERR_OK;
}

bool nc_tcp_roomy(const struct nc_stream *stream)
{
    int unsent = 0;

    return ioctl(stream->fd, SIOCOUTQNSD, &unsent) != 0 ||
           unsent < (int)atomic_load(&stream->lowat);
}

void nc_tcp_pace(int fd, uint64_t rate, uint32_t lowat)
{
    /* The kernel takes an unsigned long, and all its bits for none. */
    unsigned long pace = rate == 0 || rate > ULONG_MAX ? ULONG_MAX : (unsigned long)rate;

    /* A socket that is ending refuses; what it sends no longer matters. */
    (void)setsockopt(fd, SOL_SOCKET, SO_MAX_PACING_RATE, &pace, sizeof pace);
    (void)set(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, (int)lowat);
}

static int send_parts(struct nc_stream *stream)
{
    struct nc_outgoing *out = &stream->out;
    int from = 0;

    for (;;) {
        struct msghdr message = {0};
        ssize_t sent;

        while (from < out->parts && out->part[from].iov_len == 0)
            from++;
        if (from == out->parts)
            return 1;
        message.msg_iov = &out->part[from];
        message.msg_iovlen = (size_t)(out->parts - from);
        sent = sendmsg(stream->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0) {
            if (errno == EINTR)
                continue;
            if (errno == EAGAIN || errno == EWOULDBLOCK)
                return 0;
            nc_stream_break(stream, NC_ERR_CLOSED, errno);
            return -1;
        }
        (void)atomic_fetch_add_explicit(&stream->wire_sent_bytes, (uint64_t)sent,
                                        memory_order_relaxed);
        for (int i = from; sent > 0; i++) {
            size_t part = out->part[i].iov_len < (size_t)sent ? out->part[i].iov_len : (size_t)sent;

            out->part[i].iov_base = (uint8_t *)out->part[i].iov_base + part;
            out->part[i].iov_len -= part;
            sent -= (ssize_t)part;
        }
    }
}

/* The object is aborted: take what is left of its content into memory, and let it go. */
static int let_go(struct nc_stream *stream)
{
    struct nc_outgoing *out = &stream->out;
    struct nc_amst_object *object = out->lender;

    out->slab = nc_slab_take(stream->thread);
    if (out->slab != NULL) {
        memcpy(out->slab, out->part[1].iov_base, out->part[1].iov_len);
        out->part[1].iov_base = out->slab;
    }
    out->lender = NULL;
    (void)pthread_mutex_lock(&stream->link->lock);
    nc_object_release(object);
    (void)pthread_mutex_unlock(&stream->link->lock);
    if (out->slab == NULL) {
        nc_stream_break(stream, NC_ERR_MEMORY, ENOMEM);
        return -1;
    }
    return 1;
}

int nc_tcp_send(struct nc_stream *stream)
{
    struct nc_outgoing *out = &stream->out;
    bool aborted;
    int sent;

    if (out->lender != NULL) {
        (void)pthread_mutex_lock(&stream->link->lock);
        aborted = out->lender->aborted;
        (void)pthread_mutex_unlock(&stream->link->lock);
        if (aborted && let_go(stream) < 0)
            return -1;
    }
    sent = send_parts(stream);
    if (sent == 1 && out->lender != NULL) {
        (void)pthread_mutex_lock(&stream->link->lock);
        nc_object_release(out->lender);
        (void)pthread_mutex_unlock(&stream->link->lock);
        out->lender = NULL;
    }
    return sent;
}

static void ended(struct nc_stream *stream, int os_errno)
{
    bool in_order = stream->said_bye && stream->heard_bye && os_errno == 0;

    nc_stream_break(stream, in_order ? NC_ERR_OK : NC_ERR_CLOSED, os_errno);
}

/* Takes the frame that is complete; false when the stream broke. */
static bool complete(struct nc_stream *stream, const uint8_t *next_header, size_t next_have)
{
    struct nc_incoming *in = &stream->in;
    int code = nc_stream_take(stream, in->header, in->slab != NULL ? in->slab : in->small);

    nc_slab_give(stream->thread, in->slab);
    in->slab = NULL;
    in->want = in->have = 0;
    in->header_have = next_have;
    memcpy(in->header, next_header, next_have);
    return code == NC_ERR_OK;
}

void nc_tcp_receive(struct nc_stream *stream)
{
    struct nc_incoming *in = &stream->in;
    uint8_t next[NC_FRAME_HEADER_BYTES];
    size_t budget = TURN_BYTES;

    while (budget > 0 && !stream->broken && !nc_stream_owes(stream)) {
        bool header = in->header_have < NC_FRAME_HEADER_BYTES;
        uint8_t *payload = in->slab != NULL ? in->slab : in->small;
        struct iovec parts[2] = {
            {.iov_base = header ? in->header + in->header_have : payload + in->have,
             .iov_len = header ? NC_FRAME_HEADER_BYTES - in->header_have : in->want - in->have},
            {.iov_base = next, .iov_len = sizeof next},
        };
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = header ? 1 : 2};
        ssize_t got = recvmsg(stream->fd, &message, MSG_DONTWAIT);
        size_t taken;

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            stream->readable = false;
            return;
        }
        if (got <= 0) {
            ended(stream, got < 0 ? errno : 0);
            return;
        }
        taken = (size_t)got;
        budget -= taken < budget ? taken : budget;
        (void)atomic_fetch_add_explicit(&stream->wire_received_bytes, taken, memory_order_relaxed);
        if (header) {
            in->header_have += taken;
        } else {
            size_t here = parts[0].iov_len < taken ? parts[0].iov_len : taken;

            in->have += here;
            if (in->have == in->want && !complete(stream, next, taken - here))
                return;
        }
        while (in->header_have == NC_FRAME_HEADER_BYTES && in->have == in->want) {
            if (in->want == 0 && nc_stream_expect(stream) != NC_ERR_OK)
                return;
            if (in->want > sizeof in->small && in->slab == NULL) {
                in->slab = nc_slab_take(stream->thread);
                if (in->slab == NULL) {
                    nc_stream_break(stream, NC_ERR_MEMORY, ENOMEM);
                    return;
                }
            }
            if (in->want > 0)
                break;
            /* A frame without payload, on a link that does not encrypt. */
            if (!complete(stream, next, 0))
                return;
        }
    }
}

/* --- Figures --- */

/* BBR empties the queue it made once in ten seconds to see the way without it (draft-ietf-ccwg-bbr,
 * 5.3.4), and keeps what it saw; nothing else in the kernel knows that. 0 with another algorithm.
 */
static uint32_t base_rtt(int fd, const char *congestion)
{
    union tcp_cc_info info;
    socklen_t size = sizeof info;

    memset(&info, 0, sizeof info);
    if (strcmp(congestion, "bbr") != 0 ||
        getsockopt(fd, IPPROTO_TCP, TCP_CC_INFO, &info, &size) != 0 || size < sizeof info.bbr)
        return 0;
    /* All ones before there is a sample. */
    return info.bbr.bbr_min_rtt == UINT32_MAX ? 0 : info.bbr.bbr_min_rtt;
}

static void describe(struct nc_stream *stream, struct nc_amst_stream_info *ret_info)
{
    struct tcp_info info;
    socklen_t size = sizeof info;

    /* An older kernel fills less: what it does not know stays zero. */
    memset(&info, 0, sizeof info);
    if (getsockopt(stream->fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0)
        return;
    ret_info->rtt_us = info.tcpi_rtt;
    ret_info->rttvar_us = info.tcpi_rttvar;
    ret_info->min_rtt_us = info.tcpi_min_rtt;
    ret_info->snd_cwnd = info.tcpi_snd_cwnd;
    ret_info->snd_mss = info.tcpi_snd_mss;
    ret_info->unsent_bytes = info.tcpi_notsent_bytes;
    ret_info->total_retrans = info.tcpi_total_retrans;
    ret_info->segments_out = info.tcpi_data_segs_out;
    ret_info->needless_retrans = info.tcpi_dsack_dups;
    ret_info->delivered = info.tcpi_delivered;
    ret_info->delivered_ce = info.tcpi_delivered_ce;
    ret_info->ecn = (info.tcpi_options & TCPI_OPT_ECN) != 0;
    ret_info->app_limited = info.tcpi_delivery_rate_app_limited;
    ret_info->acked_bytes = info.tcpi_bytes_acked;
    ret_info->delivery_rate = info.tcpi_delivery_rate;
    ret_info->pacing_rate = info.tcpi_pacing_rate;
    ret_info->busy_us = info.tcpi_busy_time;
    ret_info->rwnd_limited_us = info.tcpi_rwnd_limited;
    ret_info->sndbuf_limited_us = info.tcpi_sndbuf_limited;
    size = sizeof ret_info->congestion;
    if (getsockopt(stream->fd, IPPROTO_TCP, TCP_CONGESTION, ret_info->congestion, &size) != 0)
        ret_info->congestion[0] = '\0';
    ret_info->base_rtt_us = base_rtt(stream->fd, ret_info->congestion);
}

void nc_amst_link_streams(struct nc_amst_link *link, struct nc_amst_stream_info *ret_streams,
                          size_t capacity, size_t *ret_count)
{
    size_t count = 0;

    (void)pthread_mutex_lock(&link->lock);
    for (struct nc_stream *stream = link->streams; stream != NULL; stream = stream->next_in_link) {
        struct nc_amst_stream_info *info = &ret_streams[count];

        if (count++ >= capacity)
            continue;
        memset(info, 0, sizeof *info);
        info->id = stream->id;
        info->state = atomic_load(&stream->retiring) ? (int)NC_AMST_STREAM_RETIRING : stream->state;
        info->mover = stream->channel != NULL ? NC_AMST_MOVER_RDMA : NC_AMST_MOVER_TCP;
        info->sent_bytes = stream->sent_bytes;
        info->received_bytes = stream->received_bytes;
        info->wire_sent_bytes = atomic_load(&stream->wire_sent_bytes);
        info->wire_received_bytes = atomic_load(&stream->wire_received_bytes);
        info->in_flight_bytes = stream->in_flight_bytes;
        if (stream->channel == NULL)
            describe(stream, info);
    }
    *ret_count = count;
    (void)pthread_mutex_unlock(&link->lock);
}
