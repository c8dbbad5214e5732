/* What is in flight on a stream: acknowledged, or put back when the stream dies. */
#include <stdlib.h>

#include "nc_amst_internal.h"

void nc_flight_remove(struct nc_stream *stream, struct nc_flight *flight)
{
    struct nc_amst_link *link = stream->link;

    if (flight->previous != NULL)
        flight->previous->next = flight->next;
    else
        stream->first_flight = flight->next;
    if (flight->next != NULL)
        flight->next->previous = flight->previous;
    else
        stream->last_flight = flight->previous;
    link->in_flight -= flight->credit;
    stream->in_flight_bytes -= flight->credit;
}

void nc_flight_drop(struct nc_stream *stream, struct nc_flight *flight)
{
    struct nc_amst_object *object = flight->object;

    nc_flight_remove(stream, flight);
    free(flight->segment);
    free(flight);
    nc_object_release(object);
}

bool nc_flight_built(struct nc_stream *stream, struct nc_flight *flight, bool keep_user)
{
    struct nc_amst_object *object = flight->object;
    bool good = !object->aborted;

    flight->building = false;
    if (!good)
        nc_flight_drop(stream, flight);
    else if (!keep_user)
        nc_object_release(object);
    return good;
}

static struct nc_flight *find_flight(struct nc_stream *stream, const struct nc_frame_ack *ack)
{
    for (struct nc_flight *flight = stream->first_flight; flight != NULL; flight = flight->next) {
        if (flight->offset == ack->offset && flight->object->number == ack->object &&
            flight->object->generation == ack->generation)
            return flight;
    }
    return NULL;
}

static void put_back(struct nc_amst_object *object, const struct nc_flight *flight)
{
    for (uint64_t i = flight->first; i < flight->first + flight->count; i++) {
        if (nc_bit(object->done, i))
            continue;
        nc_bit_set(object->todo, i);
        if (i / 64 < object->cursor)
            object->cursor = i / 64;
    }
}

/* The chunk is to be sent whole. Its flight is off the stream's list. */
static void refuse_base(struct nc_amst_link *link, struct nc_flight *flight)
{
    struct nc_amst_object *object = flight->object;

    if (!flight->delta) {
        /* Nobody may have a chunk sent again for ever. */
        nc_object_finish(object, NC_ERR_PROTOCOL, 0);
    } else {
        object->coded.refused_bases++;
        nc_bit_set(object->whole, flight->first);
        put_back(object, flight);
        nc_link_wake(link, 1);
    }
    free(flight);
}

void nc_link_acknowledge(struct nc_stream *stream, const struct nc_frame_ack *ack, uint64_t now_ns)
{
    struct nc_amst_link *link = stream->link;
    struct nc_amst_object *object;
    struct nc_flight *flight;

    if (ack->kind == NC_ACK_READ || ack->kind == NC_ACK_REFUSED) {
        object = nc_object_find(link->outgoing, ack->object, ack->generation);
        if (object == NULL)
            return;
        if (ack->kind == NC_ACK_REFUSED) {
            if (!object->finished)
                atomic_store(&object->refused, true);
            nc_object_finish(object, nc_frame_error_code(ack->value), (int)ack->offset);
        } else if (object->pipe != NULL && ack->offset > object->pipe->read &&
                   ack->offset <= object->pipe->next) {
            object->pipe->read = ack->offset;
            nc_pipe_read_ack(object);
            nc_link_wake(link, 1);
        }
        return;
    }
    /* What belonged to an object that was aborted meanwhile is not there any more. */
    flight = find_flight(stream, ack);
    if (flight == NULL)
        return;
    object = flight->object;
    nc_flight_remove(stream, flight);
    if (ack->kind == NC_ACK_BASE) {
        refuse_base(link, flight);
        return;
    }
    if (flight->frame == NC_FRAME_DATA && now_ns > flight->sent_ns) {
        double took = (double)(now_ns - flight->sent_ns);

        link->ack_ns = link->ack_ns == 0 ? took : link->ack_ns * 0.9 + took * 0.1;
    }
    switch (flight->frame) {
    case NC_FRAME_DATA:
        stream->sent_bytes += flight->bytes;
        link->info.sent_bytes += flight->bytes;
        nc_object_chunks_done(object, flight->first, 1, flight->bytes);
        nc_encode_acknowledged(link, flight, now_ns);
        break;
    case NC_FRAME_ZERO:
        object->info.zero_bytes += flight->bytes;
        nc_object_chunks_done(object, flight->first, flight->count, 0);
        break;
    case NC_FRAME_SEGMENT:
        stream->sent_bytes += flight->bytes;
        link->info.sent_bytes += flight->bytes;
        object->info.moved_bytes += flight->bytes;
        free(flight->segment);
        break;
    default:
        object->pipe->end_acked = true;
        nc_pipe_read_ack(object);
        break;
    }
    free(flight);
    nc_link_wake(link, 1);
}

void nc_flight_requeue(struct nc_stream *stream)
{
    struct nc_amst_link *link = stream->link;

    while (stream->first_flight != NULL) {
        struct nc_flight *flight = stream->first_flight;
        struct nc_amst_object *object = flight->object;

        nc_flight_remove(stream, flight);
        if (flight->segment != NULL) {
            flight->segment->next = object->pipe->segments;
            object->pipe->segments = flight->segment;
        } else if (flight->frame == NC_FRAME_END) {
            object->pipe->end_sent = false;
        }
        put_back(object, flight);
        object->info.resent_bytes += flight->frame == NC_FRAME_ZERO ? 0 : flight->bytes;
        link->info.resent_bytes += flight->frame == NC_FRAME_ZERO ? 0 : flight->bytes;
        free(flight);
    }
}
