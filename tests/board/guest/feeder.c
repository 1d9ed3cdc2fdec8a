// The camera's other side: plays a clip from the shared folder into a v4l2loopback device.
//
//     feeder DEVICE CLIP
//
// A clip is a file: the line "clip FORMAT WIDTH HEIGHT RATE\n" with FORMAT YUYV or MJPG
// and RATE frames a second, then frames, each a length (32 bits, little-endian) and so
// many bytes; they are played in turn for ever. The host exchanges the file by rename():
//
//     another clip          its first frame follows within a frame's time
//     a clip of no frames   the camera is there and delivers nothing
//     no file               the camera is gone: the device is closed
//
// Pictures without compression get noise in the lowest bit of their brightness, for no
// two frames of a camera are the same.
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MOST_BYTES = 64 << 20, MOST_NOISY = 1 << 20 };

struct clip {
    struct stat file;
    uint32_t format;
    int width, height, rate;
    size_t size, begin, next;
    uint8_t *bytes;
};

static void pause_ms(long ms) {
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

// Whether `path` is still the file that was read.
static int same(const struct clip *clip, const char *path) {
    struct stat now;
    return clip->bytes && stat(path, &now) == 0 && now.st_ino == clip->file.st_ino &&
           now.st_size == clip->file.st_size &&
           now.st_mtim.tv_sec == clip->file.st_mtim.tv_sec &&
           now.st_mtim.tv_nsec == clip->file.st_mtim.tv_nsec;
}

static void forget(struct clip *clip) {
    free(clip->bytes);
    memset(clip, 0, sizeof *clip);
}

// 0 where it was read, -1 where it is not there or no clip.
static int read_clip(struct clip *clip, const char *path) {
    char name[5] = "";
    int header = 0;
    forget(clip);
    FILE *file = fopen(path, "rb");
    if (!file) return -1;
    if (fstat(fileno(file), &clip->file) != 0 || clip->file.st_size > MOST_BYTES) goto wrong;
    clip->size = clip->file.st_size;
    clip->bytes = malloc(clip->size + 1);
    if (!clip->bytes || fread(clip->bytes, 1, clip->size, file) != clip->size) goto wrong;
    clip->bytes[clip->size] = 0;
    if (sscanf((char *)clip->bytes, "clip %4s %d %d %d%n", name, &clip->width, &clip->height,
               &clip->rate, &header) != 4 ||
        strlen(name) != 4 || clip->rate < 1 || clip->bytes[header] != '\n')
        goto wrong;
    clip->format = v4l2_fourcc(name[0], name[1], name[2], name[3]);
    clip->begin = clip->next = header + 1;
    fclose(file);
    printf("feeder: %s %dx%d, %d a second, %zu bytes\n", name, clip->width, clip->height,
           clip->rate, clip->size);
    return 0;
wrong:
    fprintf(stderr, "feeder: %s: not a clip\n", path);
    fclose(file);
    forget(clip);
    return -1;
}

// The next frame's bytes; nothing where the clip has none.
static const uint8_t *frame(struct clip *clip, uint32_t *length) {
    if (clip->next + 4 > clip->size) clip->next = clip->begin;
    if (clip->next + 4 > clip->size) return NULL;
    const uint8_t *at = clip->bytes + clip->next;
    *length = at[0] | at[1] << 8 | at[2] << 16 | (uint32_t)at[3] << 24;
    if (*length > clip->size - clip->next - 4) return NULL;
    clip->next += 4 + *length;
    return at + 4;
}

// Every other pixel by chance, in a copy: the clip stays as it is.
static const uint8_t *noisy(const struct clip *clip, const uint8_t *bytes, uint32_t length) {
    static uint8_t copy[MOST_NOISY];
    static uint32_t chance = 2463534242u; // xorshift, of Marsaglia
    if (clip->format != V4L2_PIX_FMT_YUYV || length > sizeof copy) return bytes;
    memcpy(copy, bytes, length);
    for (uint32_t at = 0; at < length; at += 2) {
        chance ^= chance << 13, chance ^= chance >> 17, chance ^= chance << 5;
        copy[at] ^= chance & 1;
    }
    return copy;
}

static int open_device(const char *path, const struct clip *clip) {
    int device = open(path, O_RDWR);
    if (device < 0) return -1;
    struct v4l2_format format = {.type = V4L2_BUF_TYPE_VIDEO_OUTPUT};
    format.fmt.pix.width = clip->width;
    format.fmt.pix.height = clip->height;
    format.fmt.pix.pixelformat = clip->format;
    format.fmt.pix.field = V4L2_FIELD_NONE;
    format.fmt.pix.sizeimage = clip->width * clip->height * 2;
    struct v4l2_streamparm rate = {.type = V4L2_BUF_TYPE_VIDEO_OUTPUT};
    rate.parm.output.timeperframe.numerator = 1;
    rate.parm.output.timeperframe.denominator = clip->rate;
    errno = 0;
    if (ioctl(device, VIDIOC_S_FMT, &format) != 0 ||
        format.fmt.pix.pixelformat != clip->format) {
        fprintf(stderr, "feeder: %s: format refused: %s\n", path, strerror(errno));
        close(device);
        return -1;
    }
    ioctl(device, VIDIOC_S_PARM, &rate);
    return device;
}

int main(int count, char **arguments) {
    if (count != 3) {
        fprintf(stderr, "feeder DEVICE CLIP\n");
        return 2;
    }
    const char *path = arguments[1], *file = arguments[2];
    struct clip clip = {0};
    uint32_t format = 0;
    int device = -1, width = 0, height = 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (;;) {
        if (!same(&clip, file) && read_clip(&clip, file) != 0) {
            if (device >= 0) {
                printf("feeder: no clip, the camera is gone\n");
                close(device);
                device = -1;
            }
            pause_ms(200);
            continue;
        }
        if (device >= 0 &&
            (format != clip.format || width != clip.width || height != clip.height)) {
            close(device);
            device = -1;
        }
        if (device < 0) {
            device = open_device(path, &clip);
            // Whoever still reads the old format lets go in time.
            if (device < 0) {
                pause_ms(200);
                continue;
            }
            format = clip.format, width = clip.width, height = clip.height;
        }
        uint32_t length;
        const uint8_t *bytes = frame(&clip, &length);
        if (bytes && write(device, noisy(&clip, bytes, length), length) != (ssize_t)length) {
            fprintf(stderr, "feeder: %s: %s\n", path, strerror(errno));
            close(device);
            device = -1;
        }
        pause_ms(1000 / clip.rate);
    }
}
