/* Timers in a binary heap by due time: a wake-up looks at the top only, however many there are. */
#ifndef TIMERS_H
#define TIMERS_H

#include "net.h"

struct timer {
    uint64_t due;
    size_t place; /* in the heap; 0: not set */
    void *owner;
};

static struct timer **heap; /* from 1 */
static size_t timers, heap_room;

static inline void heap_put(size_t place, struct timer *t) {
    heap[place] = t;
    t->place = place;
}

static inline void sift_up(size_t place, struct timer *t) {
    while (place > 1 && heap[place / 2]->due > t->due) {
        heap_put(place, heap[place / 2]);
        place /= 2;
    }
    heap_put(place, t);
}

static inline void sift_down(size_t place, struct timer *t) {
    for (;;) {
        size_t child = place * 2;
        if (child > timers) break;
        if (child < timers && heap[child + 1]->due < heap[child]->due) child++;
        if (heap[child]->due >= t->due) break;
        heap_put(place, heap[child]);
        place = child;
    }
    heap_put(place, t);
}

static inline void timer_clear(struct timer *t) {
    if (!t->place) return;
    struct timer *last = heap[timers--];
    size_t place = t->place;
    t->place = 0;
    if (last == t) return;
    if (place > 1 && heap[place / 2]->due > last->due) sift_up(place, last);
    else sift_down(place, last);
}

static inline void timer_set(struct timer *t, uint64_t due) {
    timer_clear(t);
    t->due = due;
    if (timers + 2 > heap_room) {
        heap_room = heap_room ? heap_room * 2 : 1024;
        heap = grown(heap, heap_room * sizeof *heap);
    }
    sift_up(++timers, t);
}

/* The owner of the first timer that is due, whose timer is cleared; NULL where none is. */
static inline void *timer_due(uint64_t now) {
    if (!timers || heap[1]->due > now) return NULL;
    struct timer *t = heap[1];
    timer_clear(t);
    return t->owner;
}

/* How long to sleep at most; -1: nothing is to come. */
static inline int64_t timer_pause(uint64_t now) {
    if (!timers) return -1;
    return heap[1]->due > now ? (int64_t)(heap[1]->due - now) : 0;
}

#endif
