/* The choice of codecs, held against a link and encoders that are simulated: no clock, no codec. */
#include <math.h>
#include <string.h>

#include "check.h"
#include "nc_codec.h"
#include "nc_hde.h"

#define MIB (1024.0 * 1024)
#define EVERYTHING 0x106u /* lz4, zstd, delta */
#define ALL ((1u << NC_HDE_RUNGS) - 1)

/* What content is: of which class samples are, and what each rung makes of it. */
struct content {
    int class;
    double ns[NC_HDE_RUNGS];
    double ratio[NC_HDE_RUNGS];
};

static const struct content LIBRARIES = {
    .class = 5, .ns = {0, 1.2, 1.35, 1.9, 3.4, 9, 22}, .ratio = {1, 2.7, 2.75, 3.9, 4.3, 4.6, 4.7}};
static const struct content LOGS = {
    .class = 6, .ns = {0, 0.5, 0.7, 0.8, 1.1, 4, 10}, .ratio = {1, 5, 6, 9, 10, 11, 11.5}};
static const struct content NOISE = {
    .class = 0, .ns = {0, 0.08, 0.2, 0.25, 0.9, 4, 9}, .ratio = {1, 1, 1, 1, 1, 1, 1}};

struct world {
    struct nc_hde_chooser chooser;
    double link; /* bytes a nanosecond */
    double cores;
    double content_ns;
    double wire_ns;
    double now;
    double at; /* of the window */
    double wire;
    double moved;
    double busy;
};

static double cost(const struct world *world, const struct content *content, int rung)
{
    return (content->ns[rung] + world->content_ns + world->wire_ns / content->ratio[rung]) /
           world->cores;
}

/* Nanoseconds a byte of content takes when always sent with that rung. */
static double fixed(const struct world *world, const struct content *content, int rung)
{
    double encoders = cost(world, content, rung);
    double link = 1 / (world->link * content->ratio[rung]);

    return encoders > link ? encoders : link;
}

static double best_fixed(const struct world *world, const struct content *content)
{
    double best = fixed(world, content, 0);

    for (int rung = 1; rung < NC_HDE_RUNGS; rung++)
        best = fmin(best, fixed(world, content, rung));
    return best;
}

/* Moves one chunk; the link and the encoders work at once, as fast as the slower of the two. */
static int move(struct world *world, const struct content *content)
{
    enum nc_hde_why why;
    int rung = nc_hde_decide(&world->chooser, content->class, (size_t)MIB, &why);
    double wire = MIB / content->ratio[rung];
    double encoders = cost(world, content, rung) * MIB;
    double link = wire / world->link;
    double took = fmax(encoders, link);

    nc_hde_learn(&world->chooser, content->class, rung, (size_t)MIB, (size_t)wire,
                 content->ns[rung] * MIB);
    nc_hde_learn_rest(&world->chooser, (size_t)MIB, world->content_ns * MIB, (size_t)wire,
                      world->wire_ns * wire);
    world->now += took;
    world->wire += wire;
    world->moved += MIB;
    world->busy += encoders;
    if (world->now - world->at >= (double)nc_hde_window_ns(&world->chooser)) {
        double ns = world->now - world->at;
        struct nc_hde_window window = {.ns = ns,
                                       .wire = world->wire,
                                       .content = world->moved,
                                       .cores = world->cores,
                                       .idle = fmax(0, 1 - world->busy / ns),
                                       .burst = world->link,
                                       .now_ns = (uint64_t)world->now};

        nc_hde_observe(&world->chooser, &window);
        world->at = world->now;
        world->wire = world->moved = world->busy = 0;
    }
    return rung;
}

static struct world open_world(double link, double cores, double hint)
{
    struct world world = {.link = link, .cores = cores, .content_ns = 0.08, .wire_ns = 0.35};

    nc_hde_open(&world.chooser, ALL, hint);
    return world;
}

/* Time of the best fixed rung, as a share of what was taken. */
static double against_best(struct world *world, const struct content *content, int chunks)
{
    double began = world->now;

    for (int i = 0; i < chunks; i++)
        (void)move(world, content);
    return best_fixed(world, content) * MIB * chunks / (world->now - began);
}

static void it_is_close_to_the_best_on_every_link(void)
{
    static const struct content *contents[] = {&LIBRARIES, &LOGS, &NOISE};
    /* 10 Mbit/s to 40 Gbit/s */
    static const double links[] = {0.00125, 0.0125, 0.0375, 0.125, 0.3, 1.25, 5};

    for (size_t c = 0; c < 3; c++) {
        for (size_t l = 0; l < sizeof links / sizeof links[0]; l++) {
            for (double which = 0; which < 8; which++) {
                double cores = 1 + fmod(which, 4);
                double hint = which < 4 ? 0 : links[l] * 1e9;
                struct world world = open_world(links[l], cores, hint);
                double share = against_best(&world, contents[c], 1000);
                /* The gigabyte is over before the first guess of such a link is mended; it is known
                 * from other measurements as a rule. */
                double least = links[l] > 1 && hint == 0 ? 0.75 : 0.96;

                if (share < least)
                    (void)fprintf(stderr, "content %zu link %g cores %g: %.3f\n", c, links[l],
                                  cores, share);
                CHECK(share >= least);
            }
        }
    }
}

/* What sticks high on a link that became fast is the known fault of choosing by the queue alone. */
static void it_comes_down_within_a_few_windows_when_the_link_gets_faster(void)
{
    struct world world = open_world(0.00125, 2, 0);
    int rung = 0;
    double share;

    for (int i = 0; i < 30; i++)
        rung = move(&world, &LIBRARIES);
    CHECK(rung >= NC_HDE_ZSTD_6);
    world.link = 1.25;
    for (int i = 0; i < 40; i++)
        rung = move(&world, &LIBRARIES);
    share = against_best(&world, &LIBRARIES, 300);
    CHECK(share >= 0.9);
    world.link = 0.00125;
    for (int i = 0; i < 20; i++)
        (void)move(&world, &LIBRARIES);
    CHECK(against_best(&world, &LIBRARIES, 50) >= 0.95);
}

static void content_that_changes_is_met_with_what_is_known_of_it(void)
{
    static const struct content *phases[] = {&LOGS, &NOISE, &LIBRARIES};
    static const double links[] = {0.0125, 0.125, 1.25};

    for (size_t l = 0; l < 3; l++) {
        struct world world = open_world(links[l], 2, 0);
        double best = 0;

        for (int round = 0; round < 12; round++) {
            for (int i = 0; i < 64; i++)
                (void)move(&world, phases[round % 3]);
            best += best_fixed(&world, phases[round % 3]) * MIB * 64;
        }
        CHECK(best / world.now >= 0.95);
    }
}

/* A burst that promises more than there is must not cost more than a moment, again and again. */
static void a_promise_that_does_not_hold_is_not_believed_for_long(void)
{
    struct world world = open_world(0.02, 1, 0);

    for (int i = 0; i < 200; i++)
        (void)move(&world, &LIBRARIES);
    for (int round = 0; round < 100; round++) {
        struct nc_hde_window lie = {.ns = 1e8,
                                    .wire = world.link * 1e8,
                                    .content = world.link * 4e8,
                                    .cores = 1,
                                    .idle = 0,
                                    .burst = 5,
                                    .now_ns = (uint64_t)world.now};

        nc_hde_observe(&world.chooser, &lie);
        for (int i = 0; i < 20; i++)
            (void)move(&world, &LIBRARIES);
    }
    CHECK(best_fixed(&world, &LIBRARIES) * MIB * 2200 / world.now >= 0.9);
}

static void the_ladder_is_what_both_sides_can_and_may(void)
{
    CHECK(nc_hde_ladder(1, -7, 19) == 1u << NC_HDE_RAW);
    CHECK(nc_hde_ladder(EVERYTHING, -7, 19) == ALL);
    CHECK(nc_hde_ladder(1u << NC_CODEC_LZ4, -7, 19) == (1u << NC_HDE_RAW | 1u << NC_HDE_LZ4));
    CHECK((nc_hde_ladder(EVERYTHING, -7, 3) & 1u << NC_HDE_ZSTD_6) == 0);
    CHECK((nc_hde_ladder(EVERYTHING, 1, 19) & 1u << NC_HDE_ZSTD_FAST) == 0);
    for (int rung = 0; rung < NC_HDE_RUNGS; rung++) {
        CHECK(nc_hde_level(rung) >= NC_CODEC_LEVEL_MIN && nc_hde_level(rung) <= 9);
        CHECK(nc_hde_codec(rung) < NC_CODEC_COUNT);
    }
}

static void only_what_is_allowed_is_chosen(void)
{
    struct world world = open_world(0.0125, 2, 0);

    nc_hde_open(&world.chooser, nc_hde_ladder(EVERYTHING, -5, 1), 0);
    for (int i = 0; i < 1000; i++)
        CHECK(move(&world, &LIBRARIES) <= NC_HDE_ZSTD_1);
    nc_hde_open(&world.chooser, 0, 0);
    for (int i = 0; i < 100; i++)
        CHECK(move(&world, &LIBRARIES) == NC_HDE_RAW);
}

static void samples_tell_classes_apart(void)
{
    CHECK(nc_hde_class(65536, 0) == 0);
    CHECK(nc_hde_class(65536, 65536) == 0);
    CHECK(nc_hde_class(65536, 65536 / 2) == 4);
    CHECK(nc_hde_class(65536, 1) == NC_HDE_CLASSES - 1);
    for (size_t coded = 1; coded < 65536; coded += 7)
        CHECK(nc_hde_class(65536, coded) >= nc_hde_class(65536, coded + 1));
}

int main(void)
{
    samples_tell_classes_apart();
    the_ladder_is_what_both_sides_can_and_may();
    only_what_is_allowed_is_chosen();
    it_is_close_to_the_best_on_every_link();
    it_comes_down_within_a_few_windows_when_the_link_gets_faster();
    content_that_changes_is_met_with_what_is_known_of_it();
    a_promise_that_does_not_hold_is_not_believed_for_long();
    return CHECK_RESULT;
}
