/* The wall clock, moved by CAUCE_TEST_DAYS: `make test DAYS=400` loads this before the C library.

   The monotonic clock stays as it is, so nothing waits longer or shorter. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static int (*real_gettime)(clockid_t, struct timespec *);
static time_t seconds;

__attribute__((constructor)) static void begin(void)
{
	const char *days = getenv("CAUCE_TEST_DAYS");

	real_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
	seconds = days ? atol(days) * 86400 : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
	if (!real_gettime)
		begin();
	if (real_gettime(clock, now))
		return -1;
	if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)
		now->tv_sec += seconds;
	return 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
	struct timespec moment;

	(void)zone;
	clock_gettime(CLOCK_REALTIME, &moment);
	*now = (struct timeval){moment.tv_sec, moment.tv_nsec / 1000};
	return 0;
}

time_t time(time_t *now)
{
	struct timespec moment;

	clock_gettime(CLOCK_REALTIME, &moment);
	return now ? *now = moment.tv_sec : moment.tv_sec;
}
