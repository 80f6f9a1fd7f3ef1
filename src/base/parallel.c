/* parallel: jobs that know nothing of each other, on as many threads as are asked for. */
#define _GNU_SOURCE

#include "base/base.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

typedef struct {
    parallel_job *job;
    void *user;
    uint64_t n;
    atomic_uint_fast64_t next;
    atomic_bool failed;
    pthread_mutex_t lock; /* of err */
    dp_error err;
} parallel_work;

typedef struct {
    parallel_work *work;
    uint32_t number;
} parallel_thread;

static void run_jobs(parallel_work *w, uint32_t thread) {
    while (!atomic_load(&w->failed)) {
        const uint64_t i = atomic_fetch_add(&w->next, 1);
        if (i >= w->n) return;
        dp_error err = { 0 };
        if (w->job(w->user, i, thread, &err)) continue;
        atomic_store(&w->failed, true);
        pthread_mutex_lock(&w->lock);
        if (w->err.status == DP_OK) w->err = err;
        pthread_mutex_unlock(&w->lock);
    }
}

static void *run_thread(void *user) {
    const parallel_thread *t = user;
    run_jobs(t->work, t->number);
    return NULL;
}

bool parallel_run(uint32_t n_threads, uint64_t n, parallel_job *job, void *user, dp_error *err) {
    parallel_work w = { .job = job, .user = user, .n = n };
    parallel_thread threads[THREADS_MAX];
    pthread_t handles[THREADS_MAX];
    uint32_t started = 1;
    const uint32_t asked = n_threads > 0 ? n_threads : processors();
    const uint32_t wanted = (uint32_t)min_u64(min_u32(asked, THREADS_MAX), max_u64(n, 1));
    pthread_mutex_init(&w.lock, NULL);
    /* Threads that cannot be had are done without. */
    for (; started < wanted; started++) {
        threads[started] = (parallel_thread){ &w, started };
        if (pthread_create(&handles[started], NULL, run_thread, &threads[started]) != 0) break;
    }
    run_jobs(&w, 0);
    for (uint32_t i = 1; i < started; i++)
        pthread_join(handles[i], NULL);
    pthread_mutex_destroy(&w.lock);
    if (!atomic_load(&w.failed)) return true;
    return err_set(err, w.err.status, "%s", w.err.message);
}

#ifdef __wasi__ /* has no threads */
uint32_t processors(void) {
    return 1;
}
#else
uint32_t processors(void) {
    cpu_set_t set;
    long n = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 0;
    if (n <= 0) n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > THREADS_MAX ? THREADS_MAX : (uint32_t)n;
}
#endif
