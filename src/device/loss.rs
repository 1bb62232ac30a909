//! Whether a device is lost.
//!
//! Natively, a lost device cannot create a buffer with contents, and whoever needs one notices. A browser creates such a buffer
//! as if nothing had happened. It tells of a loss by a promise, so a loss is known once the page's event loop has turned.

/// Whether it is known that `device` is lost. The first call for a device begins to listen.
pub(crate) fn is_lost(device: &wgpu::Device) -> bool {
    #[cfg(target_arch = "wasm32")]
    return listening::is_lost(device);
    #[cfg(not(target_arch = "wasm32"))]
    {
        let _ = device;
        false
    }
}

#[cfg(target_arch = "wasm32")]
mod listening {
    use std::cell::RefCell;
    use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};

    thread_local! {
        /// The devices of this thread that were ever listened to, and whether they are lost. They are known by a hash of wgpu's own
        /// number for a device, which is never given again; a handle would keep the device alive.
        static DEVICES: RefCell<Vec<(u64, bool)>> = const { RefCell::new(Vec::new()) };
    }

    pub(super) fn is_lost(device: &wgpu::Device) -> bool {
        let this = BuildHasherDefault::<DefaultHasher>::default().hash_one(device);
        DEVICES.with_borrow_mut(|devices| match devices.iter().find(|(other, _)| *other == this) {
            Some((_, is_lost)) => *is_lost,
            None => {
                devices.push((this, false));
                // In a browser this adds a callback. Natively it would replace the app's own.
                device.set_device_lost_callback(move |_, _| lose(this));
                false
            }
        })
    }

    fn lose(this: u64) {
        DEVICES.with_borrow_mut(|devices| {
            devices.iter_mut().filter(|(other, _)| *other == this).for_each(|(_, is_lost)| *is_lost = true);
        });
    }
}
